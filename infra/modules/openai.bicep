metadata description = 'Azure OpenAI: an account without keys, a content filter, and the model deployments.'

import { modelDeployment } from '../types.bicep'

@description('Required. Name of the account, and of its address.')
param name string

@description('Required. Region.')
param location string

@description('Required. Tags.')
param tags object

@description('Required. Models.')
param deployments modelDeployment[]

@description('Required. `Default`: text is shown once judged, in bursts. `Asynchronous_filter`: shown at once, judged beside.')
@allowed(['Default', 'Asynchronous_filter'])
param filterMode string

@description('Required. Whether only private endpoints reach it.')
param isPrivate bool

@description('Required. Principal of the app.')
param principalId string

@description('Optional. A developer who may call the models as the app may; empty: nobody.')
param developerId string = ''

@description('Required. Workspace that diagnostics go to.')
param workspaceId string

var openAIUser = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  '5e0bd9bd-7b93-4f28-af87-19fc36ad61bd'
)
var harms = ['Hate', 'Sexual', 'Selfharm', 'Violence']

resource account 'Microsoft.CognitiveServices/accounts@2025-09-01' = {
  name: name
  location: location
  tags: tags
  kind: 'OpenAI'
  sku: { name: 'S0' }
  properties: {
    customSubDomainName: name
    disableLocalAuth: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: { defaultAction: isPrivate ? 'Deny' : 'Allow' }
  }
}

resource contentFilter 'Microsoft.CognitiveServices/accounts/raiPolicies@2025-09-01' = {
  parent: account
  name: 'companion'
  properties: {
    basePolicyName: 'Microsoft.DefaultV2'
    mode: filterMode
    contentFilters: concat(
      map(harms, harm => { name: harm, enabled: true, blocking: true, severityThreshold: 'Medium', source: 'Prompt' }),
      map(harms, harm => { name: harm, enabled: true, blocking: true, severityThreshold: 'Medium', source: 'Completion' }),
      [
        { name: 'Jailbreak', enabled: true, blocking: true, source: 'Prompt' }
        { name: 'Indirect Attack', enabled: true, blocking: true, source: 'Prompt' }
        { name: 'Protected Material Text', enabled: true, blocking: true, source: 'Completion' }
        { name: 'Protected Material Code', enabled: true, blocking: false, source: 'Completion' }
      ]
    )
  }
}

// One at a time: the account refuses deployments in parallel.
@batchSize(1)
resource models 'Microsoft.CognitiveServices/accounts/deployments@2025-09-01' = [
  for deployment in deployments: {
    parent: account
    name: deployment.name
    sku: { name: deployment.sku, capacity: deployment.capacity }
    properties: {
      model: { format: 'OpenAI', name: deployment.model, version: deployment.version }
      raiPolicyName: contentFilter.name
      // A new default version is taken when an operator says so, not over night.
      versionUpgradeOption: 'OnceCurrentVersionExpired'
    }
  }
]

resource call 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: account
  name: guid(account.id, principalId, openAIUser)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: openAIUser
  }
}

resource developerCall 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(developerId)) {
  scope: account
  name: guid(account.id, developerId, openAIUser)
  properties: {
    principalId: developerId
    principalType: 'User'
    roleDefinitionId: openAIUser
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: account
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [{ category: 'Audit', enabled: true }]
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

output id string = account.id
output endpoint string = account.properties.endpoint
