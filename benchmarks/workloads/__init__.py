"""What the processes do. Each function is called after `django.setup()`."""
