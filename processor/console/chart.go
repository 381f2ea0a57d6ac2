package console

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/processor/inspect"
)

// chart is a drawing in a box of chartWide by chartHigh units, and the same as a table.
type chart struct {
	ID     string
	Title  string
	About  string
	Bars   []bar
	Lines  []line
	Ticks  []tick // of values
	Times  []tick
	Series []string // heads of the table's columns, and the legend where there are several
	Table  []tableRow
}

type bar struct{ X, Y, W, H, Label string }

type line struct{ Class, Points string }

type tick struct{ At, Label string }

type tableRow struct {
	At     time.Time
	Values []string
}

// The box: the plot lies between these edges.
const (
	chartWide, chartHigh               = 380.0, 190.0
	plotLeft, plotRight, plotTop, base = 46.0, 374.0, 10.0, 164.0
)

// charts draws volume, latency and lag.
func charts(parts []inspect.Span, s span) []*chart {
	count := func(p *inspect.Span) float64 { return float64(p.Events) }
	volume := &chart{ID: "volume", Title: "Volume", About: "Events received, in each " + s.each + "; where there are very many, from a sample.", Series: []string{"Events"}}
	top := volume.scale(parts, func(v float64) string { return number(int64(v)) }, math.Ceil, count)
	step := (plotRight - plotLeft) / float64(max(len(parts), 1))
	for i := range parts {
		if h := (base - plotTop) * float64(parts[i].Events) / top; h > 0 {
			h = max(h, 1)
			volume.Bars = append(volume.Bars, bar{units(plotLeft + step*float64(i)), units(base - h), units(step * 0.8), units(h), stamp(parts[i].From) + ": " + number(parts[i].Events)})
		}
		volume.Table = append(volume.Table, tableRow{parts[i].From, []string{number(parts[i].Events)}})
	}
	latency := &chart{ID: "latency", Title: "Latency", About: "From receipt until it is processed and stored, of up to 200 events of each " + s.each + ".", Series: []string{"half of them within", "99 % within"}}
	latency.curves(parts, func(p *inspect.Span) time.Duration { return p.Median }, func(p *inspect.Span) time.Duration { return p.P99 })
	lag := &chart{ID: "lag", Title: "Lag", About: "How long the one that waited longest has waited, of the same events.", Series: []string{"longest wait"}}
	lag.curves(parts, func(p *inspect.Span) time.Duration { return p.Most })
	out := []*chart{volume, latency, lag}
	for _, c := range out {
		c.times(parts, s)
	}
	return out
}

// curves draws durations as lines, which are broken where nothing was received.
func (c *chart) curves(parts []inspect.Span, of ...func(*inspect.Span) time.Duration) {
	var values []func(*inspect.Span) float64
	for _, f := range of {
		values = append(values, func(p *inspect.Span) float64 { return f(p).Seconds() })
	}
	top := c.scale(parts, func(v float64) string { return took(time.Duration(v * float64(time.Second))) }, func(v float64) float64 { return v }, values...)
	step := (plotRight - plotLeft) / float64(max(len(parts), 1))
	for n, f := range values {
		var points []string
		flush := func() {
			if len(points) == 1 { // a point alone is a short line
				points = append(points, points[0])
			}
			if len(points) > 0 {
				c.Lines = append(c.Lines, line{fmt.Sprintf("l%d", n+1), strings.Join(points, " ")})
			}
			points = nil
		}
		for i := range parts {
			if parts[i].Events == 0 {
				flush()
				continue
			}
			points = append(points, units(plotLeft+step*(float64(i)+0.4))+","+units(base-(base-plotTop)*f(&parts[i])/top))
		}
		flush()
	}
	for i := range parts {
		row := tableRow{At: parts[i].From}
		for _, f := range of {
			text := "–"
			if parts[i].Events > 0 {
				text = took(f(&parts[i]))
			}
			row.Values = append(row.Values, text)
		}
		c.Table = append(c.Table, row)
	}
}

// scale chooses a round top and its ticks.
func (c *chart) scale(parts []inspect.Span, label func(float64) string, whole func(float64) float64, values ...func(*inspect.Span) float64) float64 {
	most := 0.0
	for i := range parts {
		for _, f := range values {
			most = max(most, f(&parts[i]))
		}
	}
	top := 1.0
	if most > 0 {
		power := math.Pow(10, math.Floor(math.Log10(most)))
		for _, m := range []float64{1, 2, 5, 10} {
			if top = m * power; top >= most {
				break
			}
		}
		top = whole(top)
	}
	c.Ticks = []tick{{units(base), "0"}, {units(plotTop), label(top)}}
	if half := top / 2; whole(half) == half {
		c.Ticks = append(c.Ticks, tick{units((base + plotTop) / 2), label(half)})
	}
	return top
}

// times writes three moments below the plot.
func (c *chart) times(parts []inspect.Span, s span) {
	form := "15:04"
	if s.last > 24*time.Hour {
		form = "Jan 2"
	}
	for _, share := range []float64{0, 0.5, 1} {
		if len(parts) > 0 {
			i := int(share * float64(len(parts)-1))
			c.Times = append(c.Times, tick{units(plotLeft + (plotRight-plotLeft)*share), parts[i].From.UTC().Format(form)})
		}
	}
}

func units(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.1f", v), "0"), ".")
}

func trimmed(v float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") }
