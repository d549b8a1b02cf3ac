metadata description = 'App Configuration: flags that change without a deploy.'

@description('Required. Name of the store.')
param name string

@description('Required. Region.')
param location string

@description('Required. Tags.')
param tags object

@description('Required. `free` has a daily limit of requests and no private endpoint.')
@allowed(['free', 'standard'])
param tier string

@description('Required. Whether only private endpoints reach it.')
param isPrivate bool

@description('Required. Principal of the app.')
param principalId string

@description('Required. Workspace that diagnostics go to.')
param workspaceId string

var dataReader = subscriptionResourceId(
  'Microsoft.Authorization/roleDefinitions',
  '516239f1-63e1-4d78-a4de-a74fb236a071'
)

resource store 'Microsoft.AppConfiguration/configurationStores@2024-06-01' = {
  name: name
  location: location
  tags: tags
  sku: { name: tier }
  properties: {
    disableLocalAuth: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
  }
}

resource read 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: store
  name: guid(store.id, principalId, dataReader)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: dataReader
  }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: store
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [{ category: 'Audit', enabled: true }]
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

output id string = store.id
output endpoint string = store.properties.endpoint
