"""Everything that knows IPython: the magics, their options, and what a cell shows."""
