"""What `bench/ops.py` measures: one file per operator with its peers and its cases."""
