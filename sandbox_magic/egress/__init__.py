"""The network by name: a proxy of ours in this process, and the way to it from a sandbox that has no other."""
