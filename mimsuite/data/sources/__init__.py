"""Sources: folders, lists, archives, tables, arrays, and their subsets and unions."""
