metadata description = 'Front Door: one address over all regions, and the firewall in front of it. Routes are in routes.bicep.'

@description('Required. Ending of the names.')
param token string

@description('Required. Tags.')
param tags object

@description('Required. `premium` adds the managed rules and the bot rules of the firewall.')
@allowed(['standard', 'premium'])
param tier string

@description('Required. Requests a minute from one address, at most.')
param requestsPerMinute int

@description('Required. Workspace that diagnostics go to.')
param workspaceId string

var sku = tier == 'premium' ? 'Premium_AzureFrontDoor' : 'Standard_AzureFrontDoor'

resource profile 'Microsoft.Cdn/profiles@2025-12-01' = {
  name: 'afd-${token}'
  location: 'global'
  tags: tags
  sku: { name: sku }
  // The longest it knows. Streams send a comment in every silence, so they never come near it.
  properties: { originResponseTimeoutSeconds: 240 }
}

resource door 'Microsoft.Cdn/profiles/afdEndpoints@2025-12-01' = {
  parent: profile
  name: 'companion-${token}'
  location: 'global'
  tags: tags
  properties: { enabledState: 'Enabled' }
}

resource firewall 'Microsoft.Network/FrontDoorWebApplicationFirewallPolicies@2025-10-01' = {
  name: 'waf${token}'
  location: 'global'
  tags: tags
  sku: { name: sku }
  properties: {
    policySettings: {
      enabledState: 'Enabled'
      mode: 'Prevention'
      // Bodies are people's words: a question about SQL injection is no attack.
      requestBodyCheck: 'Disabled'
    }
    customRules: {
      rules: [
        {
          name: 'RatePerAddress'
          priority: 100
          enabledState: 'Enabled'
          ruleType: 'RateLimitRule'
          rateLimitDurationInMinutes: 1
          rateLimitThreshold: requestsPerMinute
          matchConditions: [
            { matchVariable: 'SocketAddr', operator: 'IPMatch', matchValue: ['0.0.0.0/0', '::/0'] }
          ]
          action: 'Block'
        }
      ]
    }
    managedRules: {
      managedRuleSets: tier == 'premium'
        ? [
            { ruleSetType: 'Microsoft_DefaultRuleSet', ruleSetVersion: '2.1', ruleSetAction: 'Block' }
            { ruleSetType: 'Microsoft_BotManagerRuleSet', ruleSetVersion: '1.1' }
          ]
        : []
    }
  }
}

resource guard 'Microsoft.Cdn/profiles/securityPolicies@2025-12-01' = {
  parent: profile
  name: 'firewall'
  properties: {
    parameters: {
      type: 'WebApplicationFirewall'
      wafPolicy: { id: firewall.id }
      associations: [{ domains: [{ id: door.id }], patternsToMatch: ['/*'] }]
    }
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: profile
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [
      { category: 'FrontDoorWebApplicationFirewallLog', enabled: true }
      { category: 'FrontDoorHealthProbeLog', enabled: true }
    ]
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

output profileName string = profile.name
output endpointName string = door.name
output frontDoorId string = profile.properties.frontDoorId
output hostName string = door.properties.hostName
