"""glTF 2.0: what its own numbers say of shape, pose and colours, read without a library that would drop some of it."""
