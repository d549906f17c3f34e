"""Whether what a corpus holds is true: its episodes one by one, among each other, and against its side tables."""
