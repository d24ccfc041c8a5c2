"""How well expression is predicted, gene by gene, beside controls and ceilings."""
