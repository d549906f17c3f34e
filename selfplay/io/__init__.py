"""Files, object stores and local scratch space."""
