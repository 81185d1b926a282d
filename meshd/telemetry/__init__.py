"""What meshd reports about itself and its proxies: metrics, readiness, a web page. Changes
nothing."""
