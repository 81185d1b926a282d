"""What meshd tells of itself and its proxies: metrics, readiness, a web page. Changes nothing."""
