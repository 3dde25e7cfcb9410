"""The loops that join the stages; they hold no rules of their own."""
