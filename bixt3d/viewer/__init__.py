"""Pictures of labelled clouds: what to show, then picture, window or web page."""
