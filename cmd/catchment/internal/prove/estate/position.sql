SELECT coalesce(sum(next_offset), 0)::bigint FROM catchment.progress WHERE topic = $1
