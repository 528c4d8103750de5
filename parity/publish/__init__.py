"""Reports, pages and charts."""
