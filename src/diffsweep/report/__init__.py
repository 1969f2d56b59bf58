"""What people look at: tables in the terminal, plain status lines, the HTML page, and the statistics behind them."""
