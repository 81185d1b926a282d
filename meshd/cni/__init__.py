"""The CNI plugin: containers and pods are in the mesh before their first process starts."""
