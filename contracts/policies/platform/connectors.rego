# Calls of tools in outside systems: flows.tool.call, and flows.tool.reconcile, the look at what became of one.
#
# The verb that aims such a call says in resource.attributes:
#   effect_class      READ, IDEMPOTENT, KEYED, RECONCILABLE or UNSAFE, from the connector's manifest
#   host              where the call goes
#   hosts_allowed     the connector's own list of hosts
#   fields            the fields that a write sets, by name
#   auto_approve      whether the workflow asks for writes without a person
#   confidence_milli  how sure the model was, in thousandths
#   priority          of the ticket, 1 is the most urgent
#   sensitivity       of the ticket
# What is missing counts against the call.

package writ

tool_call if input.action in {"flows.tool.call", "flows.tool.reconcile"}

deny contains "connector.reconcile_writes" if {
	input.action == "flows.tool.reconcile"
	effect_class != "READ"
}

effect_class := input.resource.attributes.effect_class if {
	tool_call
	input.resource.attributes.effect_class in data.writ.config.effect_classes
}

deny contains "connector.effect_class_unknown" if {
	tool_call
	not effect_class
}

deny contains "connector.host_not_allowed" if {
	tool_call
	not host_allowed
}

host_allowed if input.resource.attributes.host in input.resource.attributes.hosts_allowed

# Writes set only fields that are on the list, and say which.

writes if {
	effect_class
	effect_class != "READ"
}

fields := input.resource.attributes.fields if is_array(input.resource.attributes.fields)

deny contains "connector.field_not_allowed" if {
	writes
	some field in fields
	not field in data.writ.config.write_fields
}

deny contains "connector.fields_unknown" if {
	writes
	not fields
}

# Writes wait for people: how many, and of which tier, is a matter of the class.

approval_class := "unsafe" if effect_class == "UNSAFE"

approval_class := "write" if {
	writes
	effect_class != "UNSAFE"
}

required := {"reason": reason, "tier": needed.tier, "approvals": needed.approvals} if {
	needed := data.writ.config.approvals[approval_class]
	not approval_suffices
	not automatic
	reason := sprintf("approval.%s_effect", [approval_class])
}

approval_suffices if {
	needed := data.writ.config.approvals[approval_class]
	input.context.approved
	people := {approver |
		some approval in input.context.approvals
		approval.tier >= needed.tier
		approver := approval.approver
	}
	count(people) >= needed.approvals
}

notes contains "approval.granted" if approval_suffices

# The workflow may ask for writes without a person, where the model was sure and the ticket is not urgent. Rego orders
# values of different types, and every text is more than any number: hence the checks.

automatic if {
	approval_class == "write"
	input.resource.attributes.auto_approve == true
	is_number(input.resource.attributes.confidence_milli)
	is_number(input.resource.attributes.priority)
	input.resource.attributes.confidence_milli >= data.writ.config.automatic.confidence_milli
	input.resource.attributes.priority >= data.writ.config.automatic.priority
}

notes contains "approval.automatic" if automatic

# Checkpoints of a workflow are passed by people, as many and of such a tier as the workflow says. One that does not say
# is not passed at all.

checkpoint if input.action == "flows.approval.pass"

deny contains "approval.checkpoint_unknown" if {
	checkpoint
	not checkpoint_known
}

checkpoint_known if {
	is_number(input.resource.attributes.tier)
	is_number(input.resource.attributes.approvals)
}

required := {
	"reason": "approval.checkpoint",
	"tier": input.resource.attributes.tier,
	"approvals": input.resource.attributes.approvals,
} if {
	checkpoint
	checkpoint_known
	not checkpoint_passed
}

checkpoint_passed if {
	input.context.approved
	people := {approver |
		some approval in input.context.approvals
		approval.tier >= input.resource.attributes.tier
		approver := approval.approver
	}
	count(people) >= input.resource.attributes.approvals
}

notes contains "approval.granted" if checkpoint_passed

# Definitions of tools. Somebody with the right agrees to a change; where the tool writes, before or after, others agree too:
# how many, and of which tier, is a matter of the riskier effect class. A class that is not known is not agreed to.

redefinition if input.action == "flows.tool.approve"

redefined := input.resource.attributes.effect_class if {
	redefinition
	input.resource.attributes.effect_class in data.writ.config.effect_classes
}

deny contains "connector.effect_class_unknown" if {
	redefinition
	not redefined
}

required := {"reason": "approval.tool_definition", "tier": needed.tier, "approvals": needed.approvals} if {
	needed := data.writ.config.definitions[redefined]
	not redefinition_approved
}

redefinition_approved if {
	needed := data.writ.config.definitions[redefined]
	input.context.approved
	people := {approver |
		some approval in input.context.approvals
		approval.tier >= needed.tier
		approver := approval.approver
	}
	count(people) >= needed.approvals
}

notes contains "approval.granted" if redefinition_approved
