# The platform policy: what it answers, and in which order.
#
# An act is denied unless a role grants it and no rule of this package objects. The rules add their objections to
# three sets and one object; this file only weighs them, strictest first. Numbers and tables are in data.json.

package writ

default verdict := {"effect": "DENY", "reasons": ["policy.no_rule"]}

verdict := {"effect": "DENY", "reasons": deny} if denied

verdict := {"effect": "STEP_UP", "reasons": step_up} if stepped_up

verdict := {
	"effect": "HITL",
	"reasons": [required.reason],
	"approver_tier": required.tier,
	"approvals": required.approvals,
} if {
	not denied
	not stepped_up
	required
}

verdict := {"effect": "THROTTLE", "reasons": ["throttle.rate"], "per_minute": rate} if {
	free
	rate
}

verdict := {"effect": "ALLOW", "reasons": notes} if {
	free
	not rate
}

denied if count(deny) > 0

stepped_up if {
	not denied
	count(step_up) > 0
}

free if {
	not denied
	not stepped_up
	not required
}

rate := data.writ.config.throttles[input.action]

# What an allowed act was allowed on, besides a role.
notes contains "access.role_granted" if role_grants
