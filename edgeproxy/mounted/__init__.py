"""Python behind a route: any ``twisted.web`` resource in an upstream's place."""
