"""The parts of the HTML page are worked out here, each as data that its template shows."""
