"""Show labelled clouds as pictures, in a window or on a web page."""
