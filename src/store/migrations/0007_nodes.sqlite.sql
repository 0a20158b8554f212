-- One process has this database to itself: the nodes that share a database are PostgreSQL's alone.

SELECT 1;
