"""Which addresses no name may lead to. Our own table: what Python calls private differs between its versions."""

from __future__ import annotations

import errno
import ipaddress
import socket

# IANA's registries of special-purpose addresses, and multicast. What is not in 2000::/3 of IPv6 is refused anyway:
# loopback, link-local, unique local, multicast, IPv4-mapped, NAT64.
_REFUSED = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "of a provider's inner network",
    "127.0.0.0/8": "loopback",
    "168.63.129.16/32": "a cloud's own service",  # Azure's; the metadata of others is link-local or private
    "169.254.0.0/16": "link-local, where clouds keep credentials",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "reserved",
    "192.0.2.0/24": "for documentation",
    "192.88.99.0/24": "reserved",
    "192.168.0.0/16": "private",
    "198.18.0.0/15": "for benchmarks",
    "198.51.100.0/24": "for documentation",
    "203.0.113.0/24": "for documentation",
    "224.0.0.0/3": "multicast or reserved",
    "2001::/23": "reserved",  # Teredo too, which holds an IPv4 address
    "2001:db8::/32": "for documentation",
    "2002::/16": "6to4, which holds an IPv4 address",
    "3fff::/20": "for documentation",
}
_NETWORKS = [(ipaddress.ip_network(network), reason) for network, reason in _REFUSED.items()]
_PUBLIC_6 = ipaddress.ip_network("2000::/3")


def refusal(address: str) -> str:
    """Return why an address is refused; empty if it is a public one that is not this machine's own."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    for network, reason in _NETWORKS:
        if ip in network:
            return reason
    if ip.version == 6 and ip not in _PUBLIC_6:
        return "not public"
    return "this machine's own" if _mine(str(ip), ip.version) else ""


def _mine(address: str, version: int) -> bool:
    """Whether this machine has the address: only then can a socket be bound to it. In doubt, yes."""
    try:
        with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        return error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
    return True
