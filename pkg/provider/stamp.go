package provider

import (
	"strconv"
	"time"
)

// window is how far the time of signing may lie from now, both ways; negative: any time will do.
type window time.Duration

// check is called after the MAC has been found to fit: before, the stamp is anybody's claim.
func (w window) check(stamp, now time.Time) error {
	switch age := now.Sub(stamp); {
	case w < 0:
		return nil
	case age > time.Duration(w):
		return errStale
	case age < -time.Duration(w):
		return errFuture
	}
	return nil
}

// maxUnix is the end of the year 9999: what lies behind it is no time that a program could work with.
const maxUnix = 253402300799

// unixSeconds reads digits alone: no sign, no space. (One moment has several spellings with leading zeros; the
// signature covers the spelling.)
func unixSeconds(text string) (time.Time, bool) {
	n, ok := digits(text)
	if !ok || n > maxUnix {
		return time.Time{}, false
	}
	return time.Unix(n, 0).UTC(), true
}

// unixMillis reads the 13 digits that milliseconds have from 2001 to 2286. With one length alone, text before or
// behind them cannot be taken for a part of them.
func unixMillis(text string) (time.Time, bool) {
	n, ok := digits(text)
	if !ok || len(text) != 13 || text[0] == '0' {
		return time.Time{}, false
	}
	return time.UnixMilli(n).UTC(), true
}

func writeMillis(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// fixedSeconds reads Unix seconds of ten digits (2001 to 2286), for schemes that sign the timestamp directly followed
// by something else: with one length only, no digit can change sides.
func fixedSeconds(text string) (time.Time, bool) {
	if len(text) != 10 || text[0] == '0' {
		return time.Time{}, false
	}
	return unixSeconds(text)
}

// anyStamp reads Unix seconds, Unix milliseconds (told apart by size: seconds reach 10^11 in the year 5138) and
// RFC 3339. Fewer than 9 digits (1973) are no stamp: they could be the year of another.
func anyStamp(text string) (time.Time, bool) {
	if n, ok := digits(text); ok && len(text) >= 9 {
		if n >= 1e11 {
			return time.UnixMilli(n).UTC(), n/1000 <= maxUnix
		}
		return time.Unix(n, 0).UTC(), true
	}
	return rfc3339(text)
}

func rfc3339(text string) (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, false
	}
	return inUTC(t)
}

// inUTC wants the years that RFC 3339 has: a zone can move the first or the last of them out of it.
func inUTC(t time.Time) (time.Time, bool) {
	t = t.UTC()
	if t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}, false
	}
	return t, true
}

func digits(text string) (int64, bool) {
	if text == "" || len(text) > 18 {
		return 0, false
	}
	for i := range len(text) {
		if text[i] < '0' || text[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}
