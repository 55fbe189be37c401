# The platform policy: what it answers, and in which order.
#
# An act is denied unless a role grants it and no rule of this package objects. The rules add their objections to
# three sets and one object; this file only weighs them, strictest first. Numbers and tables are in data.json.

package writ

default verdict := {"effect": "DENY", "reasons": ["policy.no_rule"]}

verdict := {"effect": "DENY", "reasons": deny} if {
	count(deny) > 0
} else := {"effect": "STEP_UP", "reasons": step_up} if {
	count(step_up) > 0
} else := {
	"effect": "HITL",
	"reasons": [required.reason],
	"approver_tier": required.tier,
	"approvals": required.approvals,
} if {
	required
} else := {"effect": "THROTTLE", "reasons": ["throttle.rate"], "per_minute": rate} if {
	rate := data.writ.config.throttles[input.action]
} else := {"effect": "ALLOW", "reasons": notes} if true

# What an allowed act was allowed on, besides a role.
notes contains "access.role_granted" if role_grants
