"""Authorization: tokens identify principals, one table gives them actions."""
