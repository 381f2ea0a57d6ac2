package store

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"
)

func TestSetForm(t *testing.T) {
	text := []uint32{pgtype.TextOID, pgtype.Int8OID}
	known := func(string) bool { return true }
	for _, sql := range []string{
		`INSERT INTO t (a, b) VALUES (@a, @b)`,
		`INSERT INTO t (a, b) VALUES (@a, @b);`,
		`insert into s.t as x (a, "B", c) values (@a::text, @b::bigint + 1, 'it''s') on conflict do nothing`,
		`INSERT INTO "T" (a, b) VALUES (@a, coalesce(@b, 0)) ON CONFLICT (a, b) DO NOTHING -- the end`,
		`INSERT INTO t (a, b) VALUES (@a, @b) ON CONFLICT (a) DO UPDATE SET b = greatest(t.b, excluded.b) WHERE (t.b < excluded.b)`,
		`INSERT INTO t (a, b, c) VALUES (@a, @b::numeric(10, 2), now()) ON CONFLICT (a) DO UPDATE SET b = t.b + excluded.b`,
	} {
		table, form := setForm(Parse(sql, known).SQL, text)
		require.NotEmpty(t, form, sql)
		require.NotEmpty(t, table, sql)
		require.Contains(t, form, "FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY", sql)
		require.NotContains(t, form[:strings.Index(form, "FROM unnest")], "$", sql)
	}
	table, form := setForm(Parse(`INSERT INTO s."T" (a, b) VALUES (@a, @b::text) /* x */ ON CONFLICT (a) DO NOTHING;`, known).SQL, text)
	require.Equal(t, `s."T"`, table)
	require.Equal(t, `INSERT INTO s."T" (a, b) SELECT catchment_set.p1, catchment_set.p2::text
FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS catchment_set(p1, p2, n)
ORDER BY catchment_set.n
ON CONFLICT (a) DO NOTHING`, form)

	for _, sql := range []string{
		`UPDATE t SET a = @a WHERE b = @b`, `SELECT @a, @b`, `WITH x AS (SELECT 1) INSERT INTO t (a, b) VALUES (@a, @b)`,
		`INSERT INTO t VALUES (@a, @b)`, // the columns must be named: the table may get others
		`INSERT INTO t (a, b) VALUES (@a, @b), (@a, @b)`,
		`INSERT INTO t (a, b) VALUES (@a, @b) RETURNING a`,
		`INSERT INTO t (a, b) VALUES (@a, @b) ON CONFLICT (a) DO NOTHING RETURNING a`,
		`INSERT INTO t (a, b) VALUES (@a, @b) ON CONFLICT (a) DO UPDATE SET b = excluded.b RETURNING *`,
		`INSERT INTO t (a, b) SELECT @a, @b`,
		`INSERT INTO t (a, b) VALUES (@a, (SELECT max(b) + @b FROM t))`,
		`INSERT INTO t (a, b) VALUES (@a, next_of(@b))`, `INSERT INTO t (a, b) VALUES (@a, "lower" (@b))`, `INSERT INTO t (a, b) VALUES (@a, s.lower(@b), random())`,
		`INSERT INTO t (a, b, c) VALUES (@a, @b, DEFAULT)`, `INSERT INTO t (a, b, c) VALUES (@a, @b, ARRAY[1])`, `INSERT INTO t (a, b) OVERRIDING SYSTEM VALUE VALUES (@a, @b)`,
		`INSERT INTO t (a, b) VALUES (@a, @b) ON CONFLICT (a) DO UPDATE SET b = @b`,
		`INSERT INTO t (a, b) VALUES (@a, @b) ON CONFLICT (a) DO UPDATE SET b = (SELECT count(*) FROM t)`,
		`INSERT INTO t (a, b) VALUES (@a, @b) ON CONFLICT (a) DO UPDATE SET b = f(excluded.b)`,
		`INSERT INTO t (a, b) VALUES (@a, @b) ON CONFLICT ON CONSTRAINT k DO NOTHING`,
		`INSERT INTO t (a, b) VALUES (@a, @b) ON CONFLICT (lower(a)) DO NOTHING`,
		`INSERT INTO t (a, b) VALUES (@a, @b, E'\n')`, `INSERT INTO t (a, b, c) VALUES (@a, @b, $$x$$)`, `INSERT INTO t (a, b, c) VALUES (@a, @b, '\')`,
		`INSERT INTO t (a, b) VALUES (@a, @b`, `INSERT INTO t (a, b) VALUES (@a, @b)) x`, `INSERT INTO t (a, b) VALUES (@a, @b) ON CONFLICT (a) DO UPDATE SET b = 1) (`,
	} {
		_, form := setForm(Parse(sql, known).SQL, text)
		require.Empty(t, form, sql)
	}
	_, form = setForm(`INSERT INTO t (a) VALUES ($1)`, []uint32{pgtype.TextArrayOID})
	require.Empty(t, form, "unnest would take the array apart")
	_, form = setForm(`INSERT INTO t (a) VALUES ($1)`, []uint32{pgtype.BPCharOID})
	require.Empty(t, form, "character alone is one character")
	_, form = setForm(`INSERT INTO t (a) VALUES (1)`, nil)
	require.Empty(t, form)
}

func FuzzSetForm(f *testing.F) {
	f.Add(`INSERT INTO t (a, b) VALUES ($1, $2::numeric(1)) ON CONFLICT (a) DO UPDATE SET b = excluded.b -- x`)
	f.Add(`INSERT INTO "t""" AS x (a) VALUES ('x', /* /* */ */ $1);`)
	f.Fuzz(func(t *testing.T, sql string) {
		table, form := setForm(sql, []uint32{pgtype.TextOID})
		require.Equal(t, table == "", form == "")
		if form != "" && (strings.Count(form, "unnest($1::text[])") < 1 || !strings.Contains(sql, table)) {
			t.Fatal(form)
		}
	})
}
