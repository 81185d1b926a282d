"""The tutorial and its applications. Nothing of the product imports it."""
