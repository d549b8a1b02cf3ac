metadata description = 'The app: Functions on Flex Consumption, Python 3.13, one identity, no keys.'

import { scale } from '../types.bicep'

@description('Required. Name of the app, and of its address.')
param name string

@description('Required. Name of its plan.')
param planName string

@description('Required. Region.')
param location string

@description('Required. Tags; `azd-service-name` among them says that azd deploys to this app.')
param tags object

@description('Required. How it scales.')
param size scale

@description('Required. Whether instances spread over zones.')
param zoneRedundant bool

@description('Required. Resource id of the identity.')
param identityId string

@description('Required. Client id of the identity.')
param clientId string

@description('Required. Blob service of the account that hosts the app.')
param hostBlobEndpoint string

@description('Required. Queue service of the account that hosts the app.')
param hostQueueEndpoint string

@description('Required. Blob container that holds the deployed package.')
param packageContainer string

@description('Required. Address of Application Insights; with local authentication off it opens nothing by itself.')
param insightsConnectionString string

@description('Optional. Subnet that outgoing calls leave from; empty: the public network.')
param subnetId string = ''

@description('Optional. Front Door that alone may call; empty: everybody may.')
param frontDoorId string = ''

@description('Required. Origins of web pages that may call from a browser.')
param allowedOrigins string[]

@description('Required. What the app reads; names as in shared/settings.py.')
@secure()
param settings object

@description('Required. Workspace that diagnostics go to.')
param workspaceId string

// What the platform reads. Everything else comes from `settings`.
var platformSettings = {
  // The chat page is at the root, where the host would show its own.
  AzureWebJobsDisableHomepage: 'true'
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: clientId
  AzureWebJobsStorage__blobServiceUri: hostBlobEndpoint
  AzureWebJobsStorage__queueServiceUri: hostQueueEndpoint
  APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${clientId};Authorization=AAD'
}

resource plan 'Microsoft.Web/serverfarms@2025-05-01' = {
  name: planName
  location: location
  tags: tags
  kind: 'functionapp'
  sku: { name: 'FC1', tier: 'FlexConsumption' }
  properties: { reserved: true, zoneRedundant: zoneRedundant }
}

resource app 'Microsoft.Web/sites@2025-05-01' = {
  name: name
  location: location
  tags: tags
  kind: 'functionapp,linux'
  identity: { type: 'UserAssigned', userAssignedIdentities: { '${identityId}': {} } }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    siteConfig: {
      minTlsVersion: '1.2'
      scmMinTlsVersion: '1.2'
      ftpsState: 'Disabled'
      http20Enabled: true
      cors: { allowedOrigins: allowedOrigins, supportCredentials: false }
      ipSecurityRestrictionsDefaultAction: empty(frontDoorId) ? 'Allow' : 'Deny'
      ipSecurityRestrictions: empty(frontDoorId)
        ? []
        : [
            {
              name: 'our Front Door'
              priority: 100
              action: 'Allow'
              tag: 'ServiceTag'
              ipAddress: 'AzureFrontDoor.Backend'
              headers: { 'x-azure-fdid': [frontDoorId] }
            }
          ]
      // Deployment comes from the pipeline, not through Front Door.
      scmIpSecurityRestrictionsDefaultAction: 'Allow'
      scmIpSecurityRestrictionsUseMain: false
    }
    functionAppConfig: {
      runtime: { name: 'python', version: '3.13' }
      deployment: {
        storage: {
          type: 'blobContainer'
          value: '${hostBlobEndpoint}${packageContainer}'
          authentication: { type: 'UserAssignedIdentity', userAssignedIdentityResourceId: identityId }
        }
      }
      scaleAndConcurrency: {
        instanceMemoryMB: size.memoryMB
        maximumInstanceCount: size.maxInstances
        alwaysReady: size.alwaysReady > 0 ? [{ name: 'http', instanceCount: size.alwaysReady }] : []
        triggers: { http: { perInstanceConcurrency: size.httpConcurrency } }
      }
      siteUpdateStrategy: { type: 'RollingUpdate' }
    }
  }
}

resource configuration 'Microsoft.Web/sites/config@2025-05-01' = {
  parent: app
  name: 'appsettings'
  properties: union(platformSettings, settings)
}

resource noFtp 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-05-01' = {
  parent: app
  name: 'ftp'
  properties: { allow: false }
}

resource noScmPassword 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-05-01' = {
  parent: app
  name: 'scm'
  properties: { allow: false }
}

resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: app
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    // The host's log goes to Application Insights already.
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

output id string = app.id
output name string = app.name
output hostName string = app.properties.defaultHostName
