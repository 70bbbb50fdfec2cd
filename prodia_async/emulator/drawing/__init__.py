"""Pictures, films and drawings, made from a few words and a seed."""
