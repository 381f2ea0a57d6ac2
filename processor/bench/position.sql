SELECT coalesce(sum(next_offset), 0)::bigint FROM catchment.progress
