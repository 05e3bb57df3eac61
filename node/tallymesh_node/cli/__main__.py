"""`python -m tallymesh_node.cli`: the same program where its script is not on the path."""

from tallymesh_node.cli import main

main()
