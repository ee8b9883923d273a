"""Objects as users have them: pictures, data sets, captures."""
