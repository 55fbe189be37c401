# A tenant's own policy, in addition to the platform's: no writes in outside systems outside working hours.
#
# What it allows is still subject to the platform policy: verdicts are merged, and the stricter one wins. So the
# default here is ALLOW, and the rules only take away.
#
# The time is a number in the input. 1 January 1970 was a Thursday; 0 is Sunday.

package writ

default verdict := {"effect": "ALLOW"}

verdict := {"effect": "DENY", "reasons": ["hours.outside_working_hours"]} if {
	input.action == "flows.tool.call"
	not input.resource.attributes.effect_class == "READ"
	not working_hours
}

local_minutes := floor(input.now_ms / 60000) + data.writ.config.utc_offset_minutes

working_hours if {
	minute := local_minutes % 1440
	minute >= data.writ.config.from_minute
	minute < data.writ.config.until_minute
	weekday := (floor(local_minutes / 1440) + 4) % 7
	weekday in data.writ.config.weekdays
}
