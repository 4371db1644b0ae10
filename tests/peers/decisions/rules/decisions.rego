# The rules of compliance/data-residency.scm and compliance/region-policies.scm, and those of region-config/region-mapping.scm.
package repomind

free := {"public", "operational", "source-code"}

localised := {"RU", "CN"}

adequate := {"eea", "GB", "CH", "CA", "JP", "KR", "BR", "US"}

features := {"full-api", "websockets"}

# May this region hold the record? "allow", or the rule that denies it.
residency := "region-does-not-accept-class" if {
	not input.class in data.regions[input.region].accepts
} else := "allow" if {
	input.class in free
} else := credentials if {
	input.class == "credentials"
} else := "personal-must-state-jurisdiction" if {
	input.law == "none"
} else := home("eea-personal-stays-in-eea") if {
	input.law == "eea"
} else := home("localised-personal-stays-home") if {
	input.law in localised
} else := "allow" if {
	input.law == data.regions[input.region].law
	input.law != "other"
} else := "allow" if {
	data.regions[input.region].law in adequate
} else := "personal-home-or-adequate"

credentials := "credentials-avoid-localising-states" if {
	data.regions[input.region].law in localised
} else := "allow"

home(rule) := "allow" if {
	input.law == data.regions[input.region].law
} else := rule

# All regions for a client, best first. Distances come with the question: Rego has no trigonometry.
ranking := [key[5] |
	some key in sort([[incomplete(region), abroad(region), distance(id), secondary(region), 0 - region.instances, id] |
		some id, region in data.regions
	])
]

incomplete(region) := 0 if {
	every feature in features {
		feature in region.features
	}
} else := 1

abroad(region) := 0 if {
	region.continent == input.continent
} else := 1

distance(id) := input.distances[id]

secondary(region) := 0 if {
	region.primary
} else := 1
