"""What commands do once their arguments are checked: any number of objects, here, by several processes or on Ray."""
