"""What a command was given, read and checked before anything heavy is imported."""
