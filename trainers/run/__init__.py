"""What every run needs, whatever it trains: its folder, services, Ray, placement and status."""
