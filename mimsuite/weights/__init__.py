"""Files of weights as they are on disk: containers, names, our own header. Knows no method."""
