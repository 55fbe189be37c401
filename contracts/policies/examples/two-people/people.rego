# A tenant's own policy, in addition to the platform's: nothing is written in an outside system before so many people
# of such a tier have agreed, whatever the model was sure of.
#
# The platform's policy lets routine writes through by themselves. Verdicts are merged and the stricter one wins, so a
# rule that only takes away is enough: everything that is not a write is allowed here and decided there.

package writ

default verdict := {"effect": "ALLOW"}

verdict := {
	"effect": "HITL",
	"reasons": ["people.write"],
	"approver_tier": data.writ.config.tier,
	"approvals": data.writ.config.people,
} if {
	input.action == "flows.tool.call"
	not input.resource.attributes.effect_class == "READ"
	not enough
}

enough if {
	input.context.approved
	agreed := {approver |
		some approval in input.context.approvals
		approval.tier >= data.writ.config.tier
		approver := approval.approver
	}
	count(agreed) >= data.writ.config.people
}
