package database

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkExec measures durable updates of one row of many.
func BenchmarkExec(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchmarkExec(b, callers) })
	}
}

func benchmarkExec(b *testing.B, callers int) {
	d, err := Open(b.Context(), Config{File: filepath.Join(b.TempDir(), "test.db"), Schemas: []Schema{notes()}})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	err = d.Tx(b.Context(), func(tx *Tx) error {
		for id := range 10_000 {
			if err := insert(b.Context(), tx, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	body := make([]byte, 2048)
	var next atomic.Int64
	var all sync.WaitGroup
	b.ResetTimer()
	for range callers {
		all.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if _, err := d.Exec(b.Context(), `UPDATE notes SET body = $1 WHERE id = $2`, body, i*7919%10_000); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}
