SELECT partition, next_offset FROM catchment.progress WHERE topic = $1
