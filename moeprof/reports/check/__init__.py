"""A regression check for people and for CI: text, Markdown, JSON, JUnit, SARIF, annotations."""
