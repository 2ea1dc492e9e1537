"""Pictures and labels: sources, the store on disk, subsets and the order in which training sees them."""
