"""The API objects that people write: types, reading and writing, and checks."""
