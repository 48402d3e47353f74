"""Parts that the recipes share."""
