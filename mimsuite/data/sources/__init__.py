"""Where samples come from: folders, lists, archives, tables, arrays; parts and unions of them."""
