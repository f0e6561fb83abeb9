"""Mail: messages made of templates, and how they are sent."""
